import { Config, DROP, PASS, Plan, Plugin, Row, Table, Verdict, register } from "walmill";

// Keeps the rows of one country.
class Local extends Plugin {
  country: string = "";

  start(config: Config): void {
    this.country = config.text("country");
  }

  relation(table: Table): Plan {
    return new Plan(["country"]);
  }

  process(row: Row): Verdict {
    return row.text("country") == this.country ? PASS : DROP;
  }
}

register(new Local());
