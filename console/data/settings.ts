/** Settings of this browser. If the browser refuses storage, a setting lasts as long as the page is
 *  open. */
export function readSetting(name: string): string | undefined {
  try {
    return localStorage.getItem(`kube-registry.${name}`) ?? undefined;
  } catch {
    return undefined;
  }
}

/** Undefined removes the setting. */
export function writeSetting(name: string, value: string | undefined): void {
  try {
    if (value === undefined) localStorage.removeItem(`kube-registry.${name}`);
    else localStorage.setItem(`kube-registry.${name}`, value);
  } catch {
    return; // the page works without storage
  }
}
