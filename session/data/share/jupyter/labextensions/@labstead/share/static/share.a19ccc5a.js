/* Share… in the menu of JupyterLab's file browser.
 *
 * The one rule: it asks the server and shows what it answers; who may share what is decided there, by the program
 * `share` that terminals have too.
 *
 * This file is what a build would make: a container of webpack's module federation, whose two functions JupyterLab
 * calls, written by hand so that nothing has to be built. `scope` holds the modules that JupyterLab shares.
 */
(() => {
  'use strict';

  const NAME = '@labstead/share';
  let scope = null;

  async function shared(name) {
    const versions = Object.values(scope[name] || {});
    if (versions.length === 0) {
      throw new Error(`${NAME}: JupyterLab does not share ${name}`);
    }
    return (await versions[0].get())();
  }

  // --- small helps

  function element(tag, attributes = {}, ...content) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      node.setAttribute(name, value);
    }
    node.append(...content);
    return node;
  }

  const STYLE = `
    .labstead-share {
      width: 34rem; max-width: 90vw; max-height: 85vh; overflow: auto; padding: 1.2rem 1.4rem;
      border: 1px solid var(--jp-border-color1); border-radius: 4px;
      background: var(--jp-layout-color1); color: var(--jp-ui-font-color1);
      font-family: var(--jp-ui-font-family); font-size: var(--jp-ui-font-size1);
    }
    .labstead-share::backdrop { background: rgb(0 0 0 / 40%); }
    .labstead-share h2 { margin: 0 0 0.8rem; font-size: 1.2rem; overflow-wrap: anywhere; }
    .labstead-share h3 { margin: 1rem 0 0.4rem; font-size: 1rem; }
    .labstead-share form, .labstead-share li, .labstead-share .actions { display: flex; gap: 0.6rem; align-items: end; }
    .labstead-share form { flex-wrap: wrap; }
    .labstead-share label { display: flex; flex-direction: column; gap: 0.2rem; flex: 1 1 9rem; }
    .labstead-share ul { list-style: none; margin: 0; padding: 0; }
    .labstead-share li { padding: 0.2rem 0; justify-content: space-between; align-items: center; }
    .labstead-share input, .labstead-share button {
      font: inherit; color: inherit; padding: 0.3rem 0.6rem; min-height: 2rem; box-sizing: border-box;
      background: var(--jp-layout-color1); border: 1px solid var(--jp-border-color0); border-radius: 2px;
    }
    .labstead-share button { cursor: pointer; }
    .labstead-share button[type=submit] { background: var(--jp-brand-color1); color: var(--jp-ui-inverse-font-color0); }
    .labstead-share :focus-visible { outline: 2px solid var(--jp-brand-color1); outline-offset: 1px; }
    .labstead-share [role=status], .labstead-share [role=alert] {
      margin-top: 0.8rem; white-space: pre-wrap; overflow-wrap: anywhere;
    }
    .labstead-share [role=alert] { color: var(--jp-error-color1); }
    .labstead-share .actions { justify-content: flex-end; margin-top: 1rem; }
  `;

  // --- the dialog

  class ShareDialog {
    constructor(ask, path) {
      this.ask = ask;
      this.path = path;
      this.who = element('input', { name: 'with', required: '', list: 'labstead-share-names', autocomplete: 'off' });
      this.until = element('input', { name: 'until', type: 'date' });
      this.names = element('datalist', { id: 'labstead-share-names' });
      this.list = element('ul', { 'aria-labelledby': 'labstead-share-now' });
      this.status = element('div', { role: 'status' });
      this.alert = element('div', { role: 'alert' });
      this.submit = element('button', { type: 'submit' }, 'Share');
      this.form = element(
        'form',
        {},
        element('label', {}, 'With a person, a group, or everyone', this.who),
        element('label', {}, 'Last day (may be empty)', this.until),
        this.submit,
        this.names
      );
      const close = element('button', { type: 'button' }, 'Close');
      this.title = element('h2', { id: 'labstead-share-title' }, `Share ${path}`);
      this.node = element(
        'dialog',
        { class: 'labstead-share', 'aria-labelledby': 'labstead-share-title' },
        this.title,
        element('p', {}, 'They can read it, and what you put there later; nobody can change it.'),
        this.form,
        element('h3', { id: 'labstead-share-now' }, 'Shared now'),
        this.list,
        this.status,
        this.alert,
        element('div', { class: 'actions' }, close)
      );
      this.form.addEventListener('submit', event => {
        event.preventDefault();
        void this.work('POST', { with: this.who.value.trim(), until: this.until.value || null });
      });
      close.addEventListener('click', () => this.node.close());
      this.node.addEventListener('close', () => this.node.remove());
      // Shortcuts of JupyterLab are not for what is typed here.
      this.node.addEventListener('keydown', event => event.stopPropagation());
    }

    async open() {
      document.body.append(this.node);
      this.node.showModal();
      this.who.focus();
      await this.work('GET');
    }

    /* Ask the server, show what it says, and the shares as they are then. */
    async work(method, body = {}) {
      this.submit.disabled = true;
      this.status.textContent = method === 'GET' ? '' : 'One moment …';
      this.alert.textContent = '';
      try {
        const answer = await this.ask(method, { path: this.path, ...body });
        this.status.textContent = (answer.lines || []).join('\n');
        this.show(answer);
        if (method === 'POST') {
          this.who.value = '';
          this.until.value = '';
        }
      } catch (error) {
        this.status.textContent = '';
        this.alert.textContent = error.message;
      } finally {
        this.submit.disabled = false;
      }
    }

    show(answer) {
      this.title.textContent = `Share ${answer.path}`;
      this.names.replaceChildren(
        ...answer.names.map(item => element('option', { value: item.name }, item.kind))
      );
      this.list.replaceChildren(...answer.shares.map(share => this.entry(share)));
      if (answer.shares.length === 0) {
        this.list.append(element('li', {}, 'With nobody.'));
      }
    }

    entry(share) {
      const who = share.kind === 'group' ? `group ${share.with}` : share.with;
      const until = share.until ? `, until the end of ${share.until}` : '';
      const stop = element('button', { type: 'button', 'aria-label': `Stop sharing with ${who}` }, 'Stop');
      stop.addEventListener('click', () => {
        void this.work('DELETE', { with: share.kind === 'everyone' ? 'everyone' : `${share.kind}:${share.with}` });
        this.who.focus();
      });
      return element('li', {}, element('span', {}, `${who}${until}`), stop);
    }
  }

  // --- JupyterLab's side

  async function plugin() {
    const { IFileBrowserFactory } = await shared('@jupyterlab/filebrowser');
    const { ServerConnection } = await shared('@jupyterlab/services');

    function activate(app, factory) {
      const settings = app.serviceManager.serverSettings;

      async function ask(method, body) {
        const url = new URL('labstead/share', settings.baseUrl);
        const init = { method };
        if (method === 'GET') {
          url.searchParams.set('path', body.path);
        } else {
          init.body = JSON.stringify(body);
        }
        const answer = await ServerConnection.makeRequest(url.href, init, settings);
        const model = await answer.json().catch(() => ({}));
        if (!answer.ok) {
          throw new Error(model.message || `The server answers ${answer.status}; try again later.`);
        }
        return model;
      }

      const selected = () => {
        const browser = factory.tracker.currentWidget;
        return browser ? [...browser.selectedItems()] : [];
      };

      app.commands.addCommand('labstead:share', {
        label: 'Share…',
        caption: 'Let others on this machine read it',
        isVisible: () => selected().length === 1,
        execute: () => {
          const [item] = selected();
          if (item) {
            void new ShareDialog(ask, app.serviceManager.contents.localPath(item.path)).open();
          }
        }
      });
      app.contextMenu.addItem({ command: 'labstead:share', selector: '.jp-DirListing-item[data-isdir]', rank: 13.5 });
      document.head.append(element('style', {}, STYLE));
    }

    return { id: `${NAME}:plugin`, autoStart: true, requires: [IFileBrowserFactory], activate };
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init: given => {
      scope = given;
    },
    get: async module => {
      if (module !== './extension') {
        throw new Error(`${NAME} has no ${module}`);
      }
      const found = { default: await plugin(), __esModule: true };
      return () => found;
    }
  };
})();
