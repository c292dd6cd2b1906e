// The cards: each shows one part of the status.
import { html } from './html.js';
import { ago, bytes, count, moment, rate, span } from './format.js';

const Card = ({ title, id, note, children }) => html`
  <section class="card" aria-labelledby=${`${id}-title`} id=${id}>
    <h2 id=${`${id}-title`}>${title} ${note && html`<small>${note}</small>`}</h2>
    ${children}
  </section>`;

const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

function Sparkline({ values }) {
  if (values.length < 2) return null;
  const top = Math.max(...values, 1);
  const x = (index) => (index * 120) / (values.length - 1);
  const y = (value) => 27 - (value / top) * 24;
  const line = values.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
  return html`
    <svg class="spark" viewBox="0 0 120 28" preserveAspectRatio="none" aria-hidden="true">
      <polygon points=${`0,28 ${line} 120,28`} />
      <polyline points=${line} />
    </svg>`;
}

const Figure = ({ name, value, tone, children }) => html`
  <div class="figure ${tone ?? ''}">
    <span>${name}</span><strong>${value}</strong>${children}
  </div>`;

export function Overview({ status, rates }) {
  const { clients, source, source_lag_bytes: lag } = status;
  const streaming = source.state.state === 'streaming';
  const letters = status.dead_letters;
  return html`
    <section class="overview" aria-label="Overview">
      <${Figure} name="Events" value=${rate(rates.at(-1) ?? 0)}><${Sparkline} values=${rates} /><//>
      <${Figure} name="Source lag" value=${streaming ? bytes(lag) : '–'} tone=${!streaming && 'bad'}>
        <em>${source.last_commit_time ? `last commit ${ago(source.last_commit_time, status.time)}` : 'no commit yet'}</em>
      <//>
      <${Figure} name="Clients" value=${count(clients.websocket + clients.sse)}>
        <em>${count(clients.websocket)} WebSocket, ${count(clients.sse)} SSE</em>
      <//>
      <${Figure} name="Dead letters" value=${count(letters)} tone=${letters > 0 && 'warn'}>
        <em>${letters > 0 ? html`since the start, at <code>/api/v1/dlq</code>` : 'since the start'}</em>
      <//>
    </section>`;
}

export function Source({ status }) {
  const { source } = status;
  const { error, remedy } = source.state;
  const fact = (name, value) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
  return html`
    <${Card} title="Source" id="source" note=${source.server_version && `PostgreSQL ${source.server_version}`}>
      ${error && html`<p class="notice bad" role="alert"><strong>${error}</strong><br />${remedy}</p>`}
      <dl class="facts">
        ${fact('Slot', html`<code>${source.slot}</code>`)}
        ${fact('Publication', html`<code>${source.publication}</code>`)}
        ${fact('Server is at', html`<code>${source.server_lsn}</code>`)}
        ${fact('Received', html`<code>${source.received_lsn}</code>`)}
        ${fact('Confirmed', html`<code>${source.confirmed_lsn}</code>`)}
        ${fact('Connections', count(source.connections))}
      </dl>
    <//>`;
}

function Pipeline({ pipeline }) {
  const { name, plugins, emitted, dropped, dead_letters: letters, cursor, stopped } = pipeline;
  const aside = stopped ? [] : (pipeline.schema_changes ?? []);
  return html`
    <li>
      <div class="flow">
        <strong>${name}</strong>
        ${plugins.map((plugin) => html`<span class="arrow" aria-hidden="true">→</span><span class="chip">${plugin}</span>`)}
      </div>
      <div class="counts">
        <span><b>${count(emitted)}</b> emitted</span>
        <span><b>${count(dropped)}</b> dropped</span>
        <span class=${letters > 0 && 'warn'}><b>${count(letters)}</b> dead letters</span>
        <span>at <code>${cursor}</code></span>
      </div>
      ${stopped && html`<p class="notice bad" role="alert"><strong>Stopped.</strong> ${stopped}</p>`}
      ${aside.map(({ table, change }) => html`<p class="notice bad" role="alert">
        <strong>Rows of ${table} are set aside.</strong> Its definition changed: ${change}</p>`)}
    </li>`;
}

export const Pipelines = ({ status }) => html`
  <${Card} title="Pipelines" id="pipelines">
    ${status.pipelines.length === 0 && html`<${Empty}>No pipeline in the config.<//>`}
    <ul class="list">${status.pipelines.map((pipeline) => html`<${Pipeline} key=${pipeline.name} pipeline=${pipeline} />`)}</ul>
  <//>`;

function Plugin({ plugin, now }) {
  const [last] = plugin.history;
  return html`
    <li>
      <div class="flow">
        <strong>${plugin.name}</strong>
        <code title="content hash">${plugin.version}</code>
        ${plugin.language && html`<span class="chip">${plugin.language}</span>`}
        <span class="spacer"></span>
        <time title=${moment(plugin.since)}>in force for ${span(plugin.since, now)}</time>
      </div>
      <div class="counts"><span>${plugin.describes}</span><span>${bytes(plugin.size)}</span><span><code>${plugin.path}</code></span></div>
      ${last?.error && html`
        <p class="notice warn"><strong><code>${last.version}</code> was refused ${ago(last.time, now)};</strong> the version above keeps running.<br />${last.error}</p>`}
      ${plugin.note && html`<p class="notice warn">${plugin.note}</p>`}
      ${last?.outcome === 'in-force' && last.replaced && html`<p class="good">reloaded ${ago(last.time, now)}${last.reason && `: ${last.reason}`}</p>`}
    </li>`;
}

export const Plugins = ({ status }) => html`
  <${Card} title="Plugins" id="plugins">
    ${status.plugins.length === 0 && html`<${Empty}>No plugin is loaded: changes pass as they are.<//>`}
    <ul class="list">${status.plugins.map((plugin) => html`<${Plugin} key=${plugin.name} plugin=${plugin} now=${status.time} />`)}</ul>
  <//>`;

function Output({ output }) {
  const { name, kind, target, delivered, failed, dead_letters: letters, error } = output;
  return html`
    <li>
      <div class="flow"><strong>${name}</strong><span class="chip">${kind}</span><code class="target">${target}</code></div>
      <div class="counts">
        <span><b>${count(delivered)}</b> delivered</span>
        <span><b>${count(failed)}</b> failed tries</span>
        <span class=${letters > 0 && 'warn'}><b>${count(letters)}</b> dead letters</span>
      </div>
      ${error && html`<p class="notice warn">${error}</p>`}
    </li>`;
}

export const Outputs = ({ status }) => html`
  <${Card} title="Outputs" id="outputs">
    ${status.outputs.length === 0 && html`<${Empty}>No output in the config: clients read the streams.<//>`}
    <ul class="list">${status.outputs.map((output) => html`<${Output} key=${output.name} output=${output} />`)}</ul>
  <//>`;
