// Orders for the people who ship them: only the statuses they care for, masked emails, a mark on
// large orders, one stream per region.

import { computed, drop, plugin, texts } from "walmill";

const NEEDS = ["status", "email", "quantity", "region"];

// The first quantity that a 64-bit float can't tell from its neighbour.
const LARGE = 9007199254740993n;

export default plugin({
  config: { keep: texts(["paid", "shipped"]) },

  relation(table) {
    for (const name of NEEDS) {
      if (!table.has(name)) throw `no column \`${name}\``;
    }
    const shape = table.row().set("email", computed("text")).set("large", computed("boolean"));
    return { needs: NEEDS, shape };
  },

  process(row, { keep }) {
    if (!keep.includes(row.text("status"))) return drop;
    const quantity = row.int("quantity");
    if (quantity < 0n) return row.reject(`negative quantity: ${quantity}`);
    const email = row.get("email");
    const region = row.text("region");
    if (region) row.to(`orders.${lowerCase(region)}`);
    return row.emit([
      typeof email === "string" ? mask(email) : email,
      quantity === null ? null : quantity >= LARGE,
    ]);
  },
});

// `ada@example.com` as `a***@example.com`; what is no address as `***`.
function mask(email) {
  const at = email.lastIndexOf("@");
  const [first] = email;
  return at < 0 ? "***" : `${first}***${email.slice(at)}`;
}

// Of ASCII letters only.
function lowerCase(text) {
  return text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}
