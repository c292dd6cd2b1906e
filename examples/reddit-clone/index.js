// Prints every change of the database as it is committed: `npm install && node index.js`.
const { Socket } = require("@supabase/realtime-js");

const url = process.env.REALTIME_URL || "http://localhost:4000/socket";
const socket = new Socket(url);
socket.connect();

const channel = socket.channel("realtime:public");
channel
  .join()
  .receive("ok", () => console.log("Connected"))
  .receive("error", () => console.log("Failed"));

channel.on("*", (change) => console.log(change.record));
