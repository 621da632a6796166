import type { Platform } from './descriptor.ts';

/** `linux/amd64` or `linux/arm/v7`; empty for an entry of an index without a platform, or with an
 *  unknown one (attestations). */
export function formatPlatform(platform: Platform | undefined): string {
  if (platform === undefined || platform.os === 'unknown') return '';
  const { os, architecture, variant } = platform;
  return variant === undefined ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}

/** Whether an entry of an index is for `wanted`, such as linux/arm: without a variant, it stands
 *  for each of them. */
export function matchesPlatform(platform: Platform | undefined, wanted: string): boolean {
  const name = formatPlatform(platform);
  return name !== '' && (name === wanted || name.startsWith(`${wanted}/`));
}
