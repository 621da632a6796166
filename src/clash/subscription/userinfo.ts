/** What an airport says of the account, in its header `subscription-userinfo`. */
export interface UserInfo {
  /** Bytes. */
  used?: number;
  total?: number;
  left?: number;
  /** ISO 8601. */
  expires?: string;
}

/** Reads `upload=455727941; download=6174315083; total=1073741824000; expire=1671815872`; what is missing or no number stays
 *  away. */
export function parseUserInfo(header: string): UserInfo {
  const fields: Record<string, number> = {};
  for (const [, name = '', value] of header.slice(0, 1024).matchAll(/(upload|download|total|expire)\s*=\s*(\d+(?:\.\d+)?(?:e\+?\d+)?)/gi)) {
    fields[name.toLowerCase()] = Number(value);
  }
  const { upload, download, total, expire } = fields;
  const used = upload === undefined && download === undefined ? undefined : (upload ?? 0) + (download ?? 0);
  const time = expire === undefined || expire === 0 ? Number.NaN : expire * 1000;
  return {
    ...(used === undefined ? {} : { used }),
    ...(total === undefined || total === 0 ? {} : { total, left: Math.max(0, total - (used ?? 0)) }),
    ...(Math.abs(time) <= 8.64e15 ? { expires: new Date(time).toISOString() } : {}),
  };
}
