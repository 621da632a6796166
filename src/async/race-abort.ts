/** Waits for `promise`, but no longer than until `signal` is aborted. The work behind the promise
 *  continues.
 *  @throws what `promise` rejects with, or the signal's reason */
export function raceAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort);
    const end = () => signal.removeEventListener('abort', abort);
    promise.then(resolve, reject).finally(end);
  });
}
