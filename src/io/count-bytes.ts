import type { Body } from '../oci/registry.ts';
import { mapBody } from './body.ts';

/** A body may take hours to arrive, and reporting every chunk would cost more than it is worth. */
const REPORT_EVERY_MS = 1000;

/** Reports the bytes of a body while it is read: about once a second, and at its end. */
export function countBytes(body: Body, report: (bytes: number) => void): Body {
  let unreported = 0;
  let reportedAt = performance.now();
  const flush = (): void => {
    if (unreported > 0) report(unreported);
    unreported = 0;
  };
  return mapBody(body, {
    onChunk(chunk) {
      unreported += chunk.length;
      const now = performance.now();
      if (now - reportedAt < REPORT_EVERY_MS) return;
      reportedAt = now;
      flush();
    },
    onClose: flush,
  });
}
