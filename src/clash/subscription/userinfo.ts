/** A provider's information about the account, in the header `subscription-userinfo`. */
export interface UserInfo {
  /** Bytes. */
  used?: number;
  total?: number;
  left?: number;
  /** ISO 8601. */
  expires?: string;
}

/** Seconds since 1970 that are more than this (the year 5138) are milliseconds. */
const MAX_SECONDS = 1e11;
/** ECMAScript's limit for dates, in ms. */
const MAX_TIME_MS = 8.64e15;

/** Reads `upload=455727941; download=6174315083; total=1073741824000; expire=1671815872`.
 *  `expire` is in seconds or ms since 1970, or a date. Fields that are missing or malformed are
 *  left out. */
export function parseUserInfo(header: string): UserInfo {
  const fields = new Map(
    header
      .slice(0, 1024)
      .split(/[;,](?=\s*[a-z]+\s*=)/i)
      .map((field): [string, string] => [field.split('=', 1)[0]?.trim().toLowerCase() ?? '', field.slice(field.indexOf('=') + 1).trim()]),
  );
  const bytes = (name: string): number | undefined => {
    const value = fields.get(name) ?? '';
    return /^\d+(?:\.\d+)?(?:e\+?\d+)?$/i.test(value) ? Number(value) : undefined;
  };
  const [upload, download, total] = ['upload', 'download', 'total'].map(bytes);
  const used = upload === undefined && download === undefined ? undefined : (upload ?? 0) + (download ?? 0);
  const time = parseTime(fields.get('expire') ?? '');
  return {
    ...(used === undefined ? {} : { used }),
    ...(total === undefined || total === 0 ? {} : { total, left: Math.max(0, total - (used ?? 0)) }),
    ...(Math.abs(time) <= MAX_TIME_MS ? { expires: new Date(time).toISOString() } : {}),
  };
}

/** @returns ms since 1970, or NaN */
function parseTime(text: string): number {
  if (/^\d+(?:\.\d+)?(?:e\+?\d+)?$/i.test(text)) {
    const value = Number(text);
    return value === 0 ? Number.NaN : value > MAX_SECONDS ? value : value * 1000;
  }
  const [date] = /^\d{4}[-/]\d{1,2}[-/]\d{1,2}(?:[T ]\d{1,2}:\d{2}(?::\d{2})?(?:\.\d+)?\s*(?:Z|[+-]\d{2}:?\d{2})?)?/.exec(text) ?? [''];
  const day = date.replaceAll('/', '-').replace(/-(\d)(?=\D|$)/g, '-0$1');
  return Date.parse(/Z|[+-]\d{2}:?\d{2}$/.test(day.slice(10)) || day.length <= 10 ? day : `${day.replace(' ', 'T')}Z`);
}
