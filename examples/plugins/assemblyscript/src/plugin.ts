// Orders for the people who ship them: only the statuses they care for, masked emails, a mark on
// large orders, one stream per region.

import {
  Config, DROP, Plan, Plugin, Row, Shape, Table, Tag, Verdict, register,
} from "walmill";

const NEEDS = ["status", "email", "quantity", "region"];

// The first quantity that a 64-bit float can't tell from its neighbour.
const LARGE: i64 = 9007199254740993;

class Orders extends Plugin {
  keep: string[] = [];

  start(config: Config): void {
    this.keep = config.texts("keep", ["paid", "shipped"]);
  }

  relation(table: Table): Plan {
    for (let i = 0; i < NEEDS.length; i++) {
      if (!table.has(NEEDS[i])) return this.refuse(`no column \`${NEEDS[i]}\``);
    }
    const shape = Shape.of(table).computed("email", Tag.Text).computed("large", Tag.Boolean);
    return new Plan(NEEDS).shape(shape);
  }

  process(row: Row): Verdict {
    const status = row.text("status");
    if (status == null || !this.keep.includes(status)) return DROP;
    const ordered = row.tag("quantity") == Tag.Integer;
    const quantity = row.integer("quantity");
    if (ordered && quantity < 0) return row.reject(`negative quantity: ${quantity}`);
    const region = row.text("region");
    if (region != null && region != "") row.to("orders." + lowerCase(region));
    const out = row.emit();
    const email = row.text("email");
    if (email != null) out.text(mask(email));
    else out.nothing(row.tag("email"));
    if (ordered) out.boolean(quantity >= LARGE);
    else out.nothing(row.tag("quantity"));
    return out.done();
  }
}

register(new Orders());

// `ada@example.com` as `a***@example.com`; what is no address as `***`.
function mask(email: string): string {
  const at = email.lastIndexOf("@");
  if (at < 0) return "***";
  return String.fromCodePoint(email.codePointAt(0)) + "***" + email.substring(at);
}

// Of ASCII letters only.
function lowerCase(text: string): string {
  let lower = "";
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    lower += String.fromCharCode(code >= 0x41 && code <= 0x5a ? code + 32 : code);
  }
  return lower;
}
