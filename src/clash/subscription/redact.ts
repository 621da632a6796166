import { fieldsOf, itemsOf, type Fields } from '../../io/untrusted.ts';

/** Removes secrets from texts that go to a log, a status or an error. */
export interface Redactor {
  /** Adds a secret. Texts of fewer than four characters are ignored. */
  add(secret: string): void;
  /** Adds a URL, and each part of it that may be a key. */
  addUrl(url: string): void;
  /** Adds the passwords of nodes. */
  addNodes(nodes: unknown): void;
  clean(text: string): string;
}

const SECRET_KEYS = /^(?:password|uuid|psk|token|auth|auth[-_]str|private-key|pre-shared-key|obfs-password|username)$/;
/** mihomo's parsers quote unreadable text in backquotes. */
const QUOTED = /`[^`]*`/g;
const NODE_URI = /\b(?:ssr?|vmess|vless|trojan|hysteria2?|hy2|tuic|anytls|mierus?|socks5?h?):\/\/\S+/gi;
const MIN_LENGTH = 4;

export function createRedactor(): Redactor {
  const secrets = new Set<string>();
  let longestFirst: string[] = [];

  function add(secret: string): void {
    if (secret.length < MIN_LENGTH || secrets.has(secret)) return;
    secrets.add(secret);
    longestFirst = [];
  }

  return {
    add,

    addUrl(url) {
      add(url);
      if (!URL.canParse(url)) return;
      const { href, pathname, search, username, password, searchParams } = new URL(url);
      for (const part of [href, search, username, decode(username), password, decode(password)]) add(part);
      if (pathname.length >= 8) add(pathname);
      for (const part of [...searchParams.values(), ...pathname.split('/')]) if (part.length >= 8 && /\d|.{16}/.test(part)) add(part);
    },

    addNodes(nodes) {
      const visit = (fields: Fields): void => {
        for (const [key, value] of Object.entries(fields)) {
          if (SECRET_KEYS.test(key) && typeof value === 'string' && value.length >= 8) add(value);
          else if (Array.isArray(value)) for (const item of itemsOf(value)) visit(item);
          else visit(fieldsOf(value));
        }
      };
      for (const node of itemsOf(nodes)) visit(node);
    },

    clean(text) {
      if (longestFirst.length === 0) longestFirst = [...secrets].sort((a, b) => b.length - a.length);
      let cleaned = text.replace(NODE_URI, '***').replace(QUOTED, '`***`');
      for (const secret of longestFirst) cleaned = cleaned.replaceAll(secret, '***');
      return cleaned;
    },
  };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a percent sign that encodes nothing
  }
}
