// Makes a channel of supabase-js 2.x go on where it was: after a lost connection, what was
// committed meanwhile comes first, and nothing is missing. Call it before `subscribe()`.
//
//     const channel = resumable(supabase.channel("posts")).on("postgres_changes", …).subscribe();
//
// To go on after a reload of the page, too, keep the place where it lasts:
//
//     resumable(channel, localStorage.place, (place) => (localStorage.place = place));
//
// What was on its way when the connection was lost may come twice, at most as much as one batch.
function resumable(channel, place = "", keep = () => {}) {
  const goOn = () => channel.updateJoinPayload({ walmill: { resume: place } });
  goOn();
  return channel.on("system", {}, (message) => {
    if (message.extension !== "walmill") return;
    if (message.status === "error") console.warn(`walmill: ${message.message}`);
    if (!message.cursor) return;
    place = message.cursor;
    keep(place);
    goOn();
  });
}

if (typeof module !== "undefined") module.exports = { resumable };
