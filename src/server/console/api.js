// Talks to the server this page came from. The token, where one is set, lives as long as the tab.

const KEY = 'walmill-token';

export class Unauthorized extends Error {}

export const token = {
  get: () => sessionStorage.getItem(KEY) ?? '',
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

export async function get(path) {
  const headers = token.get() ? { authorization: `Bearer ${token.get()}` } : {};
  const response = await fetch(path, { headers, cache: 'no-store' });
  if (response.status === 401) throw new Unauthorized(token.get() ? 'refused' : 'missing');
  const body = await response.json();
  if (!response.ok) throw new Error(body.message ?? response.statusText);
  return body;
}

// Numbers keep every digit, where the browser can keep their text.
const exact = (_, value, context) =>
  typeof value === 'number' && context?.source && String(value) !== context.source && JSON.rawJSON
    ? JSON.rawJSON(context.source)
    : value;
const parse = (text) => JSON.parse(text, exact);

const RETRY_FIRST = 500;
const RETRY_LAST = 10_000;
// Events on their way to this page, so that a fast stream does not drown it.
const WINDOW = 500;

// Reads one stream until it is closed; after a lost connection it goes on from the last cursor.
export class LiveStream {
  constructor(stream, listener) {
    this.stream = stream;
    this.listener = listener;
    this.cursor = null;
    this.retry = RETRY_FIRST;
    this.connect();
  }

  connect() {
    const url = new URL('/v1/ws', location.href);
    url.protocol = url.protocol.replace('http', 'ws');
    if (token.get()) url.searchParams.set('token', token.get());
    this.socket = new WebSocket(url, 'walmill.v1.json');
    this.socket.onopen = () => this.subscribe();
    this.socket.onmessage = ({ data }) => this.hear(parse(data));
    this.socket.onclose = () => this.reconnect();
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  subscribe() {
    this.retry = RETRY_FIRST;
    const from = this.cursor ?? 'latest';
    this.send({ type: 'subscribe', streams: [this.stream], from, window: WINDOW });
  }

  hear(message) {
    if (message.type === 'subscribed') {
      this.cursor = message.streams[0].from;
      this.listener.onstate('live');
    } else if (message.type === 'event') {
      this.cursor = message.cursor;
      this.listener.onevent(message);
    } else if (message.type === 'gap') {
      this.cursor = message.purged;
      this.listener.ongap(message);
    } else if (message.type === 'error') {
      this.listener.onstate(message.message);
    }
  }

  // Says that everything so far is on the screen, so that more may come.
  acknowledge() {
    if (this.cursor) this.send({ type: 'ack', stream: this.stream, cursor: this.cursor });
  }

  reconnect() {
    if (this.closed) return;
    this.listener.onstate('reconnecting');
    this.timer = setTimeout(() => this.connect(), this.retry);
    this.retry = Math.min(this.retry * 2, RETRY_LAST);
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.socket.close();
  }
}
