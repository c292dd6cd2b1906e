// Live events of one stream: the newest first, a bounded list, and a pause.
import { html, useEffect, useRef, useState } from './html.js';
import { LiveStream } from './api.js';
import { count, timeOf } from './format.js';

const KEEP = 200;
// The list is drawn so often at most, however fast the stream is.
const DRAW = 250;

// Collects what comes and draws it now and then; while paused it only counts and keeps the newest.
function useEvents(stream, session, paused) {
  const [state, setState] = useState('connecting');
  const [rows, setRows] = useState([]);
  const [held, setHeld] = useState(0);
  const fresh = useRef([]);
  const missed = useRef(0);
  const pausedNow = useRef(paused);
  pausedNow.current = paused;
  useEffect(() => {
    if (!stream) return undefined;
    fresh.current = [];
    missed.current = 0;
    setRows([]);
    setState('connecting');
    const keep = (row) => {
      fresh.current.push(row);
      if (fresh.current.length > KEEP) fresh.current.shift();
      missed.current += 1;
    };
    const live = new LiveStream(stream, {
      onstate: setState,
      onevent: ({ cursor, event }) => keep({ key: cursor, event }),
      ongap: (gap) => keep({ key: `gap ${gap.purged}`, gap }),
    });
    const timer = setInterval(() => {
      if (missed.current === 0) return;
      live.acknowledge();
      if (pausedNow.current) {
        setHeld(missed.current);
        return;
      }
      const news = fresh.current.reverse();
      fresh.current = [];
      missed.current = 0;
      setHeld(0);
      setRows((rows) => [...news, ...rows].slice(0, KEEP));
    }, DRAW);
    return () => {
      clearInterval(timer);
      live.close();
    };
  }, [stream, session]);
  return { state, rows, held, clear: () => setRows([]) };
}

const short = (type) => type.replace(/^walmill\.(row\.)?/, '');

const shown = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

const isObject = (value) => typeof value === 'object' && value !== null;

// The columns that the subject does not name already; a plugin may have put anything in their place.
function preview(data) {
  const record = isObject(data) ? (data.record ?? data.old_record ?? data) : data;
  if (!isObject(record)) return record === undefined ? '' : shown(record);
  const key = isObject(data.key) ? data.key : {};
  return Object.entries(record)
    .filter(([name]) => !(name in key))
    .map(([name, value]) => html`${name} <b>${shown(value)}</b>`);
}

function Row({ event }) {
  const [open, setOpen] = useState(false);
  return html`
    <li class="event">
      <details onToggle=${({ target }) => setOpen(target.open)}>
        <summary>
          <time>${event.time ? timeOf(event.time) : ''}</time>
          <span class="op ${event.data?.op ?? ''}">${short(event.type)}</span>
          <span class="subject">${event.subject ?? event.id}</span>
          <span class="preview">${preview(event.data)}</span>
        </summary>
        ${open && html`<pre>${JSON.stringify(event, null, 2)}</pre>`}
      </details>
    </li>`;
}

const Gap = ({ gap }) => html`<li class="event gap" role="alert">Events are missing here: ${gap.message}.</li>`;

const waiting = {
  connecting: 'Connecting…',
  reconnecting: 'The connection was lost; it goes on by itself where it was.',
  live: 'Waiting for the next change. Insert a row to see it here.',
};

export function Live({ streams, session }) {
  const names = streams.map(({ name }) => name);
  const [chosen, setChosen] = useState(null);
  const [paused, setPaused] = useState(false);
  const stream = names.includes(chosen) ? chosen : names[0];
  const { state, rows, held, clear } = useEvents(stream, session, paused);
  useEffect(() => {
    const press = ({ key, target, ctrlKey, metaKey, altKey }) => {
      if (ctrlKey || metaKey || altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) return;
      if (key === 'p') setPaused((paused) => !paused);
      if (key === 'c') clear();
    };
    addEventListener('keydown', press);
    return () => removeEventListener('keydown', press);
  }, []);
  if (names.length === 0) {
    return html`<section class="card live"><h2>Live events</h2><p class="empty">There is no stream yet.</p></section>`;
  }
  return html`
    <section class="card live" id="live" aria-labelledby="live-title">
      <h2 id="live-title">
        <span>Live events</span>
        <span class="dot ${state === 'live' ? 'on' : 'off'}" title=${state}></span>
        <span class="spacer"></span>
        <label class="pick"><span>stream</span>
          <select value=${stream} onChange=${({ target }) => setChosen(target.value)}>
            ${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
          </select>
        </label>
        <button aria-pressed=${paused} title="p" onClick=${() => setPaused(!paused)}>${paused ? `Resume${held ? ` (${count(held)} new)` : ''}` : 'Pause'}</button>
        <button title="c" onClick=${clear}>Clear</button>
      </h2>
      ${rows.length === 0
        ? html`<p class="empty" data-state=${state}>${paused ? 'Paused.' : waiting[state] ?? state}</p>`
        : html`<ol class="events">${rows.map((row) => (row.gap ? html`<${Gap} key=${row.key} gap=${row.gap} />` : html`<${Row} key=${row.key} event=${row.event} />`))}</ol>`}
    </section>`;
}
