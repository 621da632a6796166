import type { ServerResponse } from 'node:http';

/** Writes the body of a response in the usual way. */
export interface Writer {
  write(chunk: Uint8Array): void;
  /** How many chunks are being written. */
  underWay(): number;
  /** Waits until at most this many chunks are being written, or the client has left. */
  until(underWay: number): Promise<void>;
  end(): Promise<void>;
  written(): number;
}

export function createWriter(response: ServerResponse): Writer {
  let underWay = 0;
  let written = 0;
  let wake: (() => void) | undefined;
  const notify = () => wake?.();
  response.once('close', notify);

  const mustWait = (wanted: number) => underWay > wanted && !response.closed;
  const until = async (wanted: number) => {
    while (mustWait(wanted)) {
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      await promise;
    }
  };
  return {
    write(chunk) {
      underWay++;
      response.write(chunk, (error) => {
        underWay--;
        if (error === null || error === undefined) written += chunk.length;
        notify();
      });
    },
    underWay: () => underWay,
    until,
    async end() {
      underWay++;
      response.end(() => {
        underWay--;
        notify();
      });
      await until(0);
    },
    written: () => written,
  };
}
