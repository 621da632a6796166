import { skipBytes, withIdleCheck } from '../io/body.ts';
import { resumingBody } from '../io/resuming-body.ts';
import { sliceOf, withSlices } from '../io/slice.ts';
import { isOciError, OciError } from '../oci/error.ts';
import type { Blob, Body } from '../oci/registry.ts';
import type { Log } from '../telemetry/log.ts';
import type { Outage } from './outage.ts';
import { other, type Answer, type Side } from './race.ts';

export interface ResumeOptions {
  outage: Outage;
  log: Log;
  /** The client's. */
  signal: AbortSignal;
  /** Milliseconds without a byte from `first` after which it is suspected to be down. */
  silentAfterMs: number;
  /** Opens the same blob from byte `start` on, asking side `from` first. */
  open: (from: Side, start: number, end?: number) => Promise<Answer<Blob>>;
}

/** How often one body may change sides. */
const MAX_RESUMES = 4;

/** The body of a blob, which continues from the other side when it is cut, or when it falls silent
 *  while the registry is down.
 *  @throws OciError of the side that failed last */
export function resumedBody(answer: Answer<Blob>, options: ResumeOptions): Body {
  const { outage, log, signal, open } = options;
  const { digest, range, size } = answer.value;
  const end = range?.end ?? (size === undefined ? undefined : size - 1);
  let { side } = answer;
  let body: Body | undefined = watched(answer, options);
  let resumes = 0;

  async function failed(cause: unknown, position: number): Promise<void> {
    const isCorrupt = isOciError(cause) && cause.corrupt;
    if (isCorrupt || signal.aborted || resumes++ === MAX_RESUMES || (end !== undefined && position > end)) throw cause;
    if (side === 'first') outage.suspect(cause);
    log.warn({ event: 'blob-resumed', error: cause, digest, position }, 'a blob was cut; resuming it from the other source');
    const rest = await open(other(side), position, end).catch((failure: unknown) => failedToOpen(failure, position));
    body = undefined;
    if (rest === undefined) return;
    const skipped = bytesToSkip(rest.value, { size, position });
    if (skipped === undefined) {
      rest.end(new OciError('UNAVAILABLE', 'the other source has another size for the blob'));
      throw cause;
    }
    ({ side } = rest);
    body = skipBytes(watched(rest, options), skipped);
  }

  return resumingBody({ start: range?.start ?? 0, open: () => Promise.resolve(body), failed, signal });
}

/** A body of unknown length may have been complete except for its end: then there is nothing after
 *  `position`.
 *  @throws `failure` in every other case */
function failedToOpen(failure: unknown, position: number): undefined {
  if (isOciError(failure, 'RANGE_INVALID') && failure.size === position) return undefined;
  throw failure;
}

/** How many bytes of `rest` the client has already; undefined: it does not continue the blob. */
function bytesToSkip(rest: Blob, { size, position }: { size: number | undefined; position: number }): number | undefined {
  const start = rest.range?.start ?? 0;
  return (size !== undefined && rest.size !== size) || start > position ? undefined : position - start;
}

/** A body of `first` that is silent for long is cut once the registry is found to be down. */
function watched({ value: { body }, side, end }: Answer<Blob>, { outage, silentAfterMs }: ResumeOptions): Body {
  if (side === 'second') return body;
  const checked = withIdleCheck(body, silentAfterMs, () => {
    outage.suspect();
    return outage.onDown(() => end(new OciError('UNAVAILABLE', 'the registry fell silent in the middle of a blob')));
  });
  return withSlices(checked, sliceOf(body));
}
