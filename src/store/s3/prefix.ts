/** A prefix as a path: no empty segments, and a slash at its end. Empty stays empty. */
function normalizePrefix(prefix: string): string {
  const segments = prefix.split('/').filter((segment) => segment !== '');
  return segments.map((segment) => `${segment}/`).join('');
}

/** The prefix of every key of a store. Former releases put the configured text before each key
 *  unchanged: `team` gave `teamv1/…`, where a path gives `team/v1/…`. Such objects are still found:
 *  if the two differ, `isUsed` is asked once whether keys start with the unchanged text.
 *  @returns a function that returns the prefix, and asks again as long as `isUsed` rejects */
export function createPrefix(
  given: string,
  isUsed: (prefix: string, signal: AbortSignal) => Promise<boolean>,
): (signal: AbortSignal) => Promise<string> {
  const path = normalizePrefix(given);
  let known = given === path ? path : undefined;
  return async (signal) => {
    known ??= (await isUsed(given, signal)) ? given : path;
    return known;
  };
}
