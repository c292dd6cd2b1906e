// The console: what walmill is doing, at a glance. It only looks; the config file stays the source
// of truth.
import { html, render, useEffect, useRef, useState } from './html.js';
import { get, token, Unauthorized } from './api.js';
import { Outputs, Overview, Pipelines, Plugins, Source } from './parts.js';
import { Live } from './live.js';

const EVERY = 2000;
const KEEP_RATES = 60;

function useStatus(signedIn) {
  const [state, setState] = useState({ status: null, error: null, rates: [] });
  const before = useRef(null);
  useEffect(() => {
    let timer;
    let stopped = false;
    const note = (status) => {
      const emitted = status.pipelines.reduce((sum, pipeline) => sum + pipeline.emitted, 0);
      const last = before.current;
      before.current = { emitted, time: status.time };
      // After a restart the counters begin again.
      const steady = last && emitted >= last.emitted && status.time > last.time;
      const rate = steady ? ((emitted - last.emitted) * 1e6) / (status.time - last.time) : null;
      setState(({ rates }) => ({
        status,
        error: null,
        rates: rate === null ? rates : [...rates, rate].slice(-KEEP_RATES),
      }));
    };
    const look = async () => {
      try {
        if (!document.hidden) note(await get('/api/v1/status'));
      } catch (error) {
        setState((state) => ({ ...state, error }));
        if (error instanceof Unauthorized) return;
      }
      if (!stopped) timer = setTimeout(look, EVERY);
    };
    look();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }, [signedIn]);
  return state;
}

function SignIn({ refused, onDone }) {
  const submit = (event) => {
    event.preventDefault();
    token.set(new FormData(event.target).get('token').trim());
    onDone();
  };
  return html`
    <main class="signin">
      <form class="card" onSubmit=${submit}>
        <h1><img src="/console/icon.svg" alt="" />walmill</h1>
        <label for="token">This walmill asks for its token.</label>
        <input id="token" name="token" type="password" autocomplete="current-password" autofocus required />
        ${refused && html`<p class="bad" role="alert">That was not it. The token is <code>server.token</code> in the config.</p>`}
        <button class="primary">Open the console</button>
      </form>
    </main>`;
}

function Header({ status, error, onSignOut }) {
  const state = error ? 'unreachable' : status.source.state.state;
  return html`
    <header>
      <h1><img src="/console/icon.svg" alt="" />walmill <small>${status.version}</small></h1>
      <span class="pill ${state}" id="source-state" role="status">${error ? 'walmill is unreachable' : `source ${state}`}</span>
      <nav>
        <a href="/readyz">ready</a>
        ${!token.get() && html`<a href="/metrics">metrics</a><a href="/api/v1/status">status</a>`}
        ${token.get() && html`<button class="link" onClick=${onSignOut}>sign out</button>`}
      </nav>
    </header>`;
}

function App() {
  const [session, setSession] = useState(0);
  const { status, error, rates } = useStatus(session);
  const restart = () => setSession(session + 1);
  if (error instanceof Unauthorized) {
    return html`<${SignIn} refused=${error.message === 'refused'} onDone=${restart} />`;
  }
  if (!status) return html`<p class="boot">${error ? 'walmill does not answer. Trying again…' : 'Loading…'}</p>`;
  const signOut = () => {
    token.forget();
    restart();
  };
  return html`
    <${Header} status=${status} error=${error} onSignOut=${signOut} />
    <main>
      <${Overview} status=${status} rates=${rates} />
      <div class="columns">
        <div class="column">
          <${Source} status=${status} />
          <${Pipelines} status=${status} />
          <${Plugins} status=${status} />
          <${Outputs} status=${status} />
        </div>
        <div class="column"><${Live} streams=${status.streams} session=${session} /></div>
      </div>
    </main>`;
}

render(html`<${App} />`, document.getElementById('app'));
