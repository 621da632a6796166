/** What somebody has chosen in this browser. Without storage (a browser may refuse it) a choice
 *  lasts as long as the page. */
export function readSetting(name: string): string | undefined {
  try {
    return localStorage.getItem(`kube-registry.${name}`) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Undefined forgets it. */
export function writeSetting(name: string, value: string | undefined): void {
  try {
    if (value === undefined) localStorage.removeItem(`kube-registry.${name}`);
    else localStorage.setItem(`kube-registry.${name}`, value);
  } catch {
    return; // the page goes on without
  }
}
