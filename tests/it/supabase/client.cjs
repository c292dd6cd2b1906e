// One client of Supabase Realtime, driven by a test: `node client.cjs MODULES CLIENT URL SPEC`.
// What happens to it is printed as JSON, a line each; lines on stdin are JSON commands.
const { createRequire } = require("node:module");
const readline = require("node:readline");
const [modules, name, url, specText] = process.argv.slice(2);
const load = createRequire(modules + "/");
const spec = JSON.parse(specText);
const say = (what, value) => console.log(JSON.stringify({ [what]: value }));
const commands = {};
const key = spec.apikey ?? "key";
readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { act, ...rest } = JSON.parse(line);
  Promise.resolve(commands[act](rest)).then((done) => done !== undefined && say(act, done));
});
process.stdin.on("end", () => process.exit(0));
const fail = (error) => say("error", String(error?.message ?? error));

// The article's program, with nothing changed but the address.
function article(Socket) {
  const socket = new Socket(url);
  socket.connect();
  for (const topic of spec.topics) {
    const channel = socket.channel(topic);
    channel.join().receive("ok", () => say("joined", topic)).receive("error", (e) => say("refused", e));
    channel.on("*", (change) => say("change", change));
    commands.leave = () => channel.leave().receive("ok", () => say("left", topic)) && undefined;
  }
}

// `subscribe` came with 1.0, under two names of the same class.
function first(Client) {
  const client = new Client(url, { params: { apikey: key } });
  if (spec.token) client.setAuth(spec.token);
  client.connect();
  for (const topic of spec.topics) {
    const channel = client.channel(topic);
    for (const event of spec.events ?? ["*"]) channel.on(event, (change) => say("change", change));
    channel.subscribe().receive("ok", () => say("joined", topic)).receive("error", (e) => say("refused", e));
    commands.leave = () => channel.unsubscribe().receive("ok", () => say("left", topic)) && undefined;
  }
}

// supabase-js 1.x: `from(table).on(…)`.
function supabase1({ createClient }) {
  const client = createClient(url, key);
  for (const table of spec.tables) {
    const subscription = client.from(table).on(spec.event ?? "*", (change) => say("change", change));
    subscription.subscribe((status, error) => say("status", status + (error ? ` ${error}` : "")));
  }
}

function second(client) {
  // supabase-js asks for the token by itself, and would join before it has it.
  const setAuth = (token) => {
    spec.token = token;
    return client.realtime ? client.realtime.setAuth() : client.setAuth(token);
  };
  commands.setAuth = ({ token }) => void setAuth(token);
  const channel = client.channel(spec.name ?? "any", spec.options ?? { config: {} });
  for (const { as, ...binding } of spec.bindings ?? []) {
    channel.on("postgres_changes", binding, (change) => say("change", as ? { as, ...change } : change));
  }
  if (spec.resumable) require("../../../examples/reddit-clone/resumable.js").resumable(channel);
  channel.on("system", {}, (message) => say("system", message));
  channel.on("broadcast", { event: "*" }, (message) => {
    if (message.payload instanceof ArrayBuffer || ArrayBuffer.isView(message.payload)) {
      const bytes = new Uint8Array(message.payload.buffer ?? message.payload);
      return say("bytes", { event: message.event, bytes: [...bytes] });
    }
    say("broadcast", message);
  });
  if (spec.presence !== false) {
    channel.on("presence", { event: "sync" }, () => say("sync", channel.presenceState()));
    channel.on("presence", { event: "join" }, (who) => say("came", who));
    channel.on("presence", { event: "leave" }, (who) => say("went", who));
  }
  const subscribe = () => channel.subscribe((status, error) => {
    say("status", status);
    if (error) fail(error);
  });
  Promise.resolve(spec.token && setAuth(spec.token)).then(subscribe);
  commands.send = ({ event, payload, bytes }) =>
    channel.send({ type: "broadcast", event, payload: bytes ? new Uint8Array(bytes).buffer : payload });
  commands.track = ({ payload }) => channel.track(payload);
  commands.untrack = () => channel.untrack();
  commands.leave = () => channel.unsubscribe();
  commands.post = ({ event, payload }) => channel.httpSend(event, payload).catch(fail);
}

const transport = load("ws");
if (name === "realtime-0.1.8" || name === "realtime-0.9.0") article(load(name).Socket);
else if (name === "supabase-1") supabase1(load(name));
else if (name === "supabase-2") {
  const accessToken = spec.token && (async () => spec.token);
  second(load(name).createClient(url, key, { realtime: { transport }, accessToken }));
}
else if (name.startsWith("realtime-1.")) first(load(name).RealtimeClient ?? load(name).Socket);
else second(new (load(name).RealtimeClient)(url, { params: { apikey: key }, transport }));
