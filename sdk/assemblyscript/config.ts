// A plugin's configuration. What is read from it is what there may be; the rest is a finding.

export class Finding {
  constructor(
    public path: string,
    public message: string,
  ) {}
}

/** The plugin's `config` table, as JSON that walmill has written. */
export class Config {
  findings: Finding[] = [];
  private keys: string[] = [];
  /** Where each key's value starts. */
  private values: i32[] = [];
  private asked: Set<string> = new Set();
  private at: i32 = 0;

  constructor(private json: string) {
    if (json.length > 0) this.members();
  }

  has(key: string): bool {
    return this.keys.includes(key);
  }

  /** A text; without a fallback it has to be there. */
  text(key: string, fallback: string | null = null): string {
    const at = this.find(key, fallback == null);
    if (at < 0) return fallback == null ? "" : <string>fallback;
    this.at = at;
    if (this.next() == QUOTE) return this.string();
    this.wrong(key, "must be a text");
    return "";
  }

  /** A list of texts. */
  texts(key: string, fallback: string[] | null = null): string[] {
    const at = this.find(key, fallback == null);
    const texts: string[] = [];
    if (at < 0) return fallback == null ? texts : <string[]>fallback;
    this.at = at;
    if (this.next() != OPEN_LIST) {
      this.wrong(key, "must be a list of texts");
      return texts;
    }
    this.at++;
    for (let index = 0; this.next() != CLOSE_LIST; index++) {
      if (this.next() == QUOTE) {
        texts.push(this.string());
      } else {
        this.wrong(`${key}[${index}]`, "must be a text");
        this.skip();
      }
      if (this.next() == COMMA) this.at++;
    }
    return texts;
  }

  /** A whole number. */
  integer(key: string, fallback: i64 = i64.MIN_VALUE): i64 {
    const at = this.find(key, fallback == i64.MIN_VALUE);
    if (at < 0) return fallback;
    const number = this.number(at);
    if (number.length > 0 && !number.includes(".") && !number.includes("e")) {
      return I64.parseInt(number);
    }
    this.wrong(key, "must be a whole number");
    return 0;
  }

  /** True or false. */
  boolean(key: string, fallback: bool): bool {
    const at = this.find(key, false);
    if (at < 0) return fallback;
    if (this.json.startsWith("true", at)) return true;
    if (!this.json.startsWith("false", at)) this.wrong(key, "must be true or false");
    return false;
  }

  /** Tells what is wrong with the configuration, by key, as in `columns[2]`. */
  wrong(path: string, message: string): void {
    this.findings.push(new Finding(path, message));
  }

  /** Finds the keys that nobody has read. */
  finish(): void {
    for (let i = 0; i < this.keys.length; i++) {
      if (!this.asked.has(this.keys[i])) this.wrong(this.keys[i], "unknown key");
    }
  }

  private find(key: string, needed: bool): i32 {
    this.asked.add(key);
    const index = this.keys.indexOf(key);
    if (index >= 0) return this.values[index];
    if (needed) this.wrong(key, "missing");
    return -1;
  }

  private number(at: i32): string {
    let end = at;
    while (end < this.json.length && isNumber(this.json.charCodeAt(end))) end++;
    return this.json.substring(at, end);
  }

  private members(): void {
    this.next();
    this.at++;
    while (this.next() == QUOTE) {
      this.keys.push(this.string());
      this.next();
      this.at++;
      this.next();
      this.values.push(this.at);
      this.skip();
      if (this.next() == COMMA) this.at++;
    }
  }

  /** The next character that is no white space. */
  private next(): i32 {
    while (this.at < this.json.length && this.json.charCodeAt(this.at) <= 32) this.at++;
    return this.at < this.json.length ? this.json.charCodeAt(this.at) : -1;
  }

  /** Behind the value that starts here. */
  private skip(): void {
    let depth = 0;
    do {
      const next = this.next();
      if (next == QUOTE) this.string();
      else this.at++;
      if (next == OPEN_LIST || next == OPEN_TABLE) depth++;
      if (next == CLOSE_LIST || next == CLOSE_TABLE) depth--;
      if (next < 0) return;
      if (depth == 0 && isNumber(next)) while (isNumber(this.peek())) this.at++;
      else if (depth == 0 && isLetter(next)) while (isLetter(this.peek())) this.at++;
    } while (depth > 0);
  }

  private peek(): i32 {
    return this.at < this.json.length ? this.json.charCodeAt(this.at) : -1;
  }

  /** The text that starts here. */
  private string(): string {
    let text = "";
    for (this.at++; this.peek() != QUOTE && this.peek() >= 0; this.at++) {
      if (this.peek() == BACKSLASH) {
        this.at++;
        text += this.escaped();
      } else {
        text += String.fromCharCode(this.peek());
      }
    }
    this.at++;
    return text;
  }

  private escaped(): string {
    switch (this.peek()) {
      case 0x62:
        return "\b";
      case 0x66:
        return "\f";
      case 0x6e:
        return "\n";
      case 0x72:
        return "\r";
      case 0x74:
        return "\t";
      case 0x75: {
        const code = I32.parseInt(this.json.substr(this.at + 1, 4), 16);
        this.at += 4;
        return String.fromCharCode(code);
      }
      default:
        return String.fromCharCode(this.peek());
    }
  }
}

const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const OPEN_TABLE = 0x7b;
const CLOSE_TABLE = 0x7d;

function isLetter(code: i32): bool {
  return code >= 0x61 && code <= 0x7a;
}

/** Digits, sign, point and exponent. */
function isNumber(code: i32): bool {
  return (code >= 0x30 && code <= 0x39) || code == 0x2d || code == 0x2b || code == 0x2e ||
    code == 0x45 || code == 0x65;
}
