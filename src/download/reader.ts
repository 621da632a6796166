import { createBody } from '../io/body.ts';
import { withSlices } from '../io/slice.ts';
import type { Body } from '../oci/registry.ts';
import type { Connections } from './connections.ts';
import { createSpoolReader } from './spool/spool-reader.ts';
import type { DownloadState } from './state.ts';

export interface ReaderOptions {
  state: DownloadState;
  connections: Connections;
  /** The part that the reader wants: [from, to); `to` is undefined while the size is unknown. */
  from: number;
  to: number | undefined;
  /** Reads the bytes that will not be in the spool. */
  rest(this: void, from: number, to: number | undefined, signal: AbortSignal): AsyncGenerator<Uint8Array>;
}

/** One reader's body of a spool file that is still being written. */
export function createReader({ state, connections, from, to, rest: withoutSpool }: ReaderOptions, signal: AbortSignal): Body {
  const { spool } = state;
  const reader = createSpoolReader(spool, state.chunks);
  const self = {};
  let position = from;
  let rest: AsyncGenerator<Uint8Array> | undefined;
  let open = true;
  let whole = false;
  const end = (): number | undefined => to ?? (state.verified ? state.size : undefined);

  /** Waits until the next byte may be read from the spool, and returns the position up to which it
   *  may be read. Undefined: the body ends here, or the spool will not have the byte. */
  async function reach(): Promise<number | undefined> {
    while (open && rest === undefined) {
      signal.throwIfAborted();
      const last = end() ?? Infinity;
      if (position >= last) return undefined;
      const limit = Math.min(state.readableEnd(position), last);
      if (limit > position) return limit;
      if (state.failure !== undefined) throw state.failure.error;
      if (state.spoolFull && !connections.running()) return undefined;
      const changed = state.changed();
      connections.demand(self, Math.max(position, state.have.endFrom(position)));
      await changed;
    }
    return undefined;
  }

  async function pull(): Promise<Uint8Array | undefined> {
    const limit = await reach();
    if (limit !== undefined) {
      const chunk = await reader.read(position, limit, end() ?? Infinity);
      position += chunk.length;
      return chunk;
    }
    if (open && position < (end() ?? Infinity)) rest ??= withoutSpool(position, end(), signal);
    const step = await rest?.next();
    if (step?.done === false) return step.value;
    whole = rest === undefined;
    return undefined;
  }

  async function close(): Promise<void> {
    open = false;
    reader.close(whole);
    connections.release(self);
    state.notify();
    await rest?.return(undefined);
  }

  return withSlices(createBody({ pull, close }, signal), async (taken) => {
    position += taken;
    const limit = await reach();
    return limit === undefined ? undefined : { file: spool, position, length: limit - position };
  });
}
