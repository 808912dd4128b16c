// An OpenID Connect provider for tests: provider.mjs SETTINGS
//
// The rule: the protocol is oidc-provider's, a certified one; here stand only its clients, and people whom it reads anew
// from a file at each log-in. Its own log-in page asks for a name, which is the account's `sub`, and takes any password.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';

import { Provider } from 'oidc-provider';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const people = () => JSON.parse(readFileSync(settings.people, 'utf8'));
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

const provider = new Provider(settings.issuer, {
  clients: settings.clients,
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' }] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  claims: {
    openid: ['sub'],
    profile: ['name', 'preferred_username'],
    email: ['email', 'email_verified'],
    groups: ['groups'],
  },
  ttl: { AccessToken: 600, AuthorizationCode: 60, Grant: 3600, IdToken: 600, Interaction: 600, Session: 3600 },
  async findAccount(context, sub) {
    const claims = people()[sub];
    return claims && { accountId: sub, claims: async () => ({ sub, ...claims }) };
  },
});
provider.on('server_error', (context, error) => console.error(error));

createServer(
  { key: readFileSync(settings.key), cert: readFileSync(settings.certificate) },
  provider.callback(),
).listen(settings.port, () => console.log(`provider at ${settings.issuer}`));
