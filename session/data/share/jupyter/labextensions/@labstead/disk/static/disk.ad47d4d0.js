/* How full the disks are: an item in JupyterLab's status bar, notices, a banner over a full home, and a dialog that
 * shows what takes the space and deletes it.
 *
 * The one rule: it asks the server and shows what it answers; numbers, words and what may be deleted are decided there,
 * by what the command `quota` says in terminals.
 *
 * This file is what a build would make: a container of webpack's module federation, whose two functions JupyterLab
 * calls, written by hand so that nothing has to be built. `scope` holds the modules that JupyterLab shares.
 */
(() => {
  'use strict';

  const NAME = '@labstead/disk';
  /* Milliseconds between two looks: while there is room, while there is little, and after something was saved. */
  const CALM = 60000;
  const TIGHT = 15000;
  const SAVED = 2000;
  /* And after something was deleted, as the hub says for 3 s what it said last. */
  const DELETED = 3500;
  const LEVELS = ['', 'notice', 'warning', 'full'];
  /* Percent below which there is room enough again, after the level of that place was told. */
  const ENOUGH = [0, 75, 90, 95];
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

  const count = number => number.toLocaleString('en');

  const STYLE = `
    .labstead-disk-item {
      border: 0; background: none; padding: 0 6px; height: 100%; cursor: pointer; white-space: nowrap;
      font-family: var(--jp-ui-font-family); font-size: var(--jp-ui-font-size1); line-height: 24px;
      color: var(--jp-ui-font-color1);
    }
    .labstead-disk-item:hover { background: var(--jp-layout-color3); }
    .labstead-disk-item[data-level=notice] { background: #ffd54f; color: #000; }
    .labstead-disk-item[data-level=warning], .labstead-disk-item[data-level=full] { background: #b71c1c; color: #fff; }
    .labstead-disk-item:focus-visible { outline: 2px solid var(--jp-brand-color1); outline-offset: -2px; }
    #labstead-disk-banner { min-height: 40px; background: #b71c1c; color: #fff; }
    #labstead-disk-banner > div {
      display: flex; align-items: center; gap: 0.8rem; height: 100%; padding: 0 0.8rem; box-sizing: border-box;
      font-family: var(--jp-ui-font-family); font-size: var(--jp-ui-font-size1); line-height: 1.2;
    }
    #labstead-disk-banner button {
      flex: none; font: inherit; color: #000; background: #fff; border: 0; border-radius: 2px; cursor: pointer;
      padding: 0.2rem 0.7rem; min-height: 1.8rem;
    }
    #labstead-disk-banner button:focus-visible { outline: 3px solid #ffd54f; outline-offset: 1px; }
    .labstead-disk {
      width: 46rem; max-width: 92vw; max-height: 88vh; overflow: auto; padding: 1.2rem 1.4rem;
      border: 1px solid var(--jp-border-color1); border-radius: 4px;
      background: var(--jp-layout-color1); color: var(--jp-ui-font-color1);
      font-family: var(--jp-ui-font-family); font-size: var(--jp-ui-font-size1);
    }
    .labstead-disk::backdrop { background: rgb(0 0 0 / 40%); }
    .labstead-disk h2 { margin: 0 0 0.6rem; font-size: 1.2rem; overflow-wrap: anywhere; }
    .labstead-disk p { margin: 0 0 0.6rem; }
    .labstead-disk fieldset { border: 0; margin: 0 0 0.6rem; padding: 0; display: flex; gap: 1rem; align-items: center; }
    .labstead-disk legend { float: left; margin-right: 1rem; padding: 0; }
    .labstead-disk table { width: 100%; border-collapse: collapse; }
    .labstead-disk th, .labstead-disk td {
      text-align: left; padding: 0.2rem 0.5rem; border-bottom: 1px solid var(--jp-border-color2);
    }
    .labstead-disk td:first-child { overflow-wrap: anywhere; }
    .labstead-disk .number { text-align: right; white-space: nowrap; }
    .labstead-disk .do { text-align: right; white-space: nowrap; }
    .labstead-disk button {
      font: inherit; color: inherit; padding: 0.2rem 0.6rem; min-height: 1.9rem; cursor: pointer;
      background: var(--jp-layout-color1); border: 1px solid var(--jp-border-color0); border-radius: 2px;
    }
    .labstead-disk button[data-kind=delete] { background: #b71c1c; border-color: #b71c1c; color: #fff; }
    .labstead-disk button:disabled { opacity: 50%; cursor: default; }
    .labstead-disk :focus-visible { outline: 2px solid var(--jp-brand-color1); outline-offset: 1px; }
    .labstead-disk h2:focus-visible { outline: none; }
    .labstead-disk [role=status], .labstead-disk [role=alert] { margin-top: 0.8rem; overflow-wrap: anywhere; }
    .labstead-disk [role=alert] { color: var(--jp-error-color1); }
    .labstead-disk .actions { display: flex; justify-content: flex-end; gap: 0.6rem; margin-top: 1rem; }
  `;

  // --- the dialog

  class LargestDialog {
    /* `ask` asks the server, `changed` is told of what was deleted and gives the home as it is then. */
    constructor(ask, changed, home, by) {
      this.ask = ask;
      this.changed = changed;
      this.path = '';
      this.by = by;
      this.use = element('p', {});
      this.body = element('tbody', {});
      this.status = element('div', { role: 'status' });
      this.alert = element('div', { role: 'alert' });
      this.up = element('button', { type: 'button' }, 'Back to the whole home');
      this.close = element('button', { type: 'button' }, 'Close');
      this.title = element('h2', { id: 'labstead-disk-title', tabindex: '-1' }, 'What takes the space in your home');
      const choice = ['bytes', 'files'].map(value => {
        const input = element('input', { type: 'radio', name: 'labstead-disk-by', value });
        input.checked = value === by;
        input.addEventListener('change', () => {
          this.by = value;
          void this.look();
        });
        return element('label', {}, input, value === 'bytes' ? ' size' : ' number of files');
      });
      this.node = element(
        'dialog',
        { class: 'labstead-disk', 'aria-labelledby': 'labstead-disk-title' },
        this.title,
        this.use,
        element('fieldset', {}, element('legend', {}, 'Largest by'), ...choice),
        element(
          'table',
          { 'aria-labelledby': 'labstead-disk-title' },
          element(
            'thead',
            {},
            element(
              'tr',
              {},
              element('th', { scope: 'col' }, 'File or folder'),
              element('th', { scope: 'col', class: 'number' }, 'Size'),
              element('th', { scope: 'col', class: 'number' }, 'Files'),
              element('th', { scope: 'col', class: 'do' }, 'What to do')
            )
          ),
          this.body
        ),
        this.status,
        this.alert,
        element('div', { class: 'actions' }, this.up, this.close)
      );
      this.tell(home);
      this.up.addEventListener('click', () => void this.into(''));
      this.close.addEventListener('click', () => this.node.close());
      this.node.addEventListener('close', () => this.node.remove());
      // Shortcuts of JupyterLab are not for what is pressed here.
      this.node.addEventListener('keydown', event => event.stopPropagation());
    }

    async open() {
      document.body.append(this.node);
      this.node.showModal();
      this.title.focus();
      await this.look();
    }

    tell(home) {
      this.use.textContent = home ? `Your home holds ${home.words.join('; ')}.` : '';
    }

    async into(path) {
      this.path = path;
      this.title.focus();
      await this.look();
    }

    /* Do something with the server, and say what came of it. */
    async work(action) {
      this.alert.textContent = '';
      this.status.textContent = 'One moment …';
      try {
        this.status.textContent = await action();
      } catch (error) {
        this.status.textContent = '';
        this.alert.textContent = error.message;
      }
    }

    async look(before = '') {
      await this.work(async () => {
        const query = new URLSearchParams({ path: this.path, by: this.by });
        const found = await this.ask('GET', `labstead/disk/largest?${query}`);
        this.title.textContent = `What takes the space in ${this.path || 'your home'}`;
        this.up.hidden = this.path === '';
        this.body.replaceChildren(...found.things.map(thing => this.row(thing)));
        const least = found.is_complete ? '' : ' There is more than could be looked at: sizes are at least these.';
        return `${before}${found.things.length === 0 ? 'There is nothing large here.' : ''}${least}`;
      });
    }

    row(thing) {
      const name = thing.is_folder ? `${thing.path}/` : thing.path;
      const what = thing.is_folder ? `${name} (${count(thing.files)} files and folders)` : name;
      const place = element('td', { class: 'do' });
      const remove = element('button', { type: 'button', 'aria-label': `Delete ${name}` }, 'Delete');
      const keep = element('button', { type: 'button' }, 'Keep');
      const sure = element('button', { type: 'button', 'data-kind': 'delete' }, 'Delete for good');
      sure.setAttribute('aria-label', `Delete ${what} for good; it cannot be brought back`);
      const choices = [remove];
      if (thing.is_folder) {
        const into = element('button', { type: 'button', 'aria-label': `Look into ${name}` }, 'Look into');
        into.addEventListener('click', () => void this.into(thing.path));
        choices.unshift(into, ' ');
      }
      place.append(...choices);
      remove.addEventListener('click', () => {
        place.replaceChildren(sure, ' ', keep);
        this.status.textContent = `Delete ${what}, ${thing.size}, for good? It cannot be brought back.`;
        keep.focus();
      });
      keep.addEventListener('click', () => {
        place.replaceChildren(...choices);
        this.status.textContent = '';
        remove.focus();
      });
      sure.addEventListener('click', async () => {
        sure.disabled = keep.disabled = true;
        let told = '';
        await this.work(async () => {
          await this.ask('DELETE', 'labstead/disk/largest', { path: thing.path });
          told = `${name} is deleted. `;
          return told;
        });
        const failure = this.alert.textContent;
        this.tell(await this.changed());
        this.title.focus();
        await this.look(told);
        this.alert.textContent ||= failure;
      });
      return element(
        'tr',
        {},
        element('td', {}, name),
        element('td', { class: 'number' }, thing.size),
        element('td', { class: 'number' }, count(thing.files)),
        place
      );
    }
  }

  // --- JupyterLab's side

  async function plugin() {
    const { IStatusBar } = await shared('@jupyterlab/statusbar');
    const { Notification } = await shared('@jupyterlab/apputils');
    const { ServerConnection } = await shared('@jupyterlab/services');
    const { INotebookTracker } = await shared('@jupyterlab/notebook');
    const { IEditorTracker } = await shared('@jupyterlab/fileeditor');
    const { Widget } = await shared('@lumino/widgets');

    /* Tell once that a space fills up, and again only after it had room; pages of one browser know of each other. */
    function tellOnce(space, base) {
      const key = `${NAME}:${base}:${space.path}`;
      const level = LEVELS.indexOf(space.level);
      let told = 0;
      try {
        told = Number(window.localStorage.getItem(key) || 0);
        // Use that goes to and fro about a threshold is not told each time.
        if (level > told || (space.percent || 0) < ENOUGH[told]) {
          window.localStorage.setItem(key, String(level));
        }
      } catch (error) {
        console.warn(`${NAME}: the browser keeps nothing: ${error.message}`);
      }
      return level > told;
    }

    function activate(app, statusBar, ...trackers) {
      const settings = app.serviceManager.serverSettings;
      const item = element('button', { type: 'button', class: 'labstead-disk-item' });
      const text = element('span', {});
      const inspect = element('button', { type: 'button' }, 'Show what takes the space');
      const bar = new Widget();
      const banner = new Widget();
      let home = null;
      let timer = 0;
      let number = 0;
      const notices = new Map();

      async function ask(method, path, body) {
        const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
        const answer = await ServerConnection.makeRequest(new URL(path, settings.baseUrl).href, init, settings);
        const model = await answer.json().catch(() => ({}));
        if (!answer.ok) {
          throw new Error(model.message || `The server answers ${answer.status}; try again later.`);
        }
        return model;
      }

      function openDialog() {
        const by = home && home.nearest !== home.words[0] ? 'files' : 'bytes';
        void new LargestDialog(ask, () => changed(), home, by).open();
      }

      async function changed() {
        await look(true);
        if (home && home.level) {
          plan(DELETED, true);
        }
        if (app.commands.hasCommand('filebrowser:refresh')) {
          void app.commands.execute('filebrowser:refresh');
        }
        return home;
      }

      function show(model) {
        home = model.spaces.find(space => space.kind === 'home') || null;
        bar.setHidden(home === null || home.words.length === 0);
        if (home) {
          item.textContent = `${home.title} ${home.nearest}`;
          item.dataset.level = home.level;
          const lines = model.spaces.map(space => `${space.title}: ${space.words.join('; ')}`);
          item.title = [...lines, 'Press to see what takes the space in your home.'].join('\n');
          item.setAttribute('aria-label', [home.notice, ...lines, 'Show what takes the space'].filter(Boolean).join('. '));
        }
        const isFull = home !== null && home.level === 'full';
        if (isFull) {
          const words = `${home.notice} Delete what you no longer need, then save again.`;
          if (text.textContent !== words) {
            text.textContent = words;
          }
        }
        if (isFull && !banner.isAttached) {
          app.shell.add(banner, 'header');
        }
        if (banner.isAttached) {
          banner.setHidden(!isFull);
          // JupyterLab shows the panel with the first thing that is put there, and never hides it.
          banner.parent.setHidden(banner.parent.widgets.every(widget => widget.isHidden));
        }
        model.spaces.forEach(space => notify(space, space === home && isFull));
      }

      /* `isSaid` elsewhere: the banner tells of a full home. */
      function notify(space, isSaid) {
        const isNew = tellOnce(space, settings.baseUrl);
        const shown = notices.get(space.path);
        if (shown && shown.level !== space.level) {
          Notification.dismiss(shown.id);
          notices.delete(space.path);
        }
        if (isNew && !isSaid) {
          const actions = space === home ? [{ label: 'Show what takes the space', callback: openDialog }] : [];
          const type = space.level === 'notice' ? 'warning' : 'error';
          const id = Notification.emit(space.notice, type, { autoClose: false, actions });
          notices.set(space.path, { id, level: space.level });
        }
      }

      async function look(fresh) {
        window.clearTimeout(timer);
        const mine = ++number;
        try {
          const model = await ask('GET', `labstead/disk${fresh ? '?fresh=1' : ''}`);
          if (mine === number) {
            show(model);
          }
        } catch (error) {
          console.warn(`${NAME}: ${error.message}`);
        }
        if (mine === number) {
          plan(home && home.level ? TIGHT : CALM);
        }
      }

      function plan(milliseconds, fresh = false) {
        window.clearTimeout(timer);
        timer = window.setTimeout(() => {
          if (document.hidden) {
            plan(milliseconds);
          } else {
            void look(fresh);
          }
        }, milliseconds);
      }

      bar.node.append(item);
      bar.hide();
      item.addEventListener('click', openDialog);
      statusBar.registerStatusItem(`${NAME}:home`, { item: bar, align: 'left', rank: 10 });
      banner.id = 'labstead-disk-banner';
      banner.node.setAttribute('role', 'alert');
      banner.node.append(element('div', {}, text, inspect));
      inspect.addEventListener('click', openDialog);
      app.commands.addCommand('labstead:largest', { label: 'Show What Takes the Space in My Home', execute: openDialog });
      app.serviceManager.contents.fileChanged.connect(() => plan(SAVED, true));
      for (const tracker of trackers.filter(Boolean)) {
        tracker.widgetAdded.connect((_, widget) => {
          widget.context.saveState.connect((_context, state) => {
            if (state === 'failed') {
              void look(true);
            }
          });
        });
      }
      document.head.append(element('style', {}, STYLE));
      void app.restored.then(() => look(false));
    }

    return {
      id: `${NAME}:plugin`,
      autoStart: true,
      requires: [IStatusBar],
      optional: [INotebookTracker, IEditorTracker],
      activate
    };
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
