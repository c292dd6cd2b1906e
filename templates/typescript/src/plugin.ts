import { drop, pass, plugin, text } from "walmill";

// Keeps the rows of one country.
export default plugin({
  config: { country: text() },
  needs: ["country"],
  process: (row, config) => (row.text("country") === config.country ? pass : drop),
});
