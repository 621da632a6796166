/** Runs `work` for each item, `count` at a time. After the first failure, no further item is
 *  started, and the call fails once the running items have ended.
 *  @throws what `work`, or the iterator of `items`, throws first */
export async function inParallel<Item>(
  items: Iterable<Item> | AsyncIterable<Item>,
  count: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const iterator = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
  let failure: { error: unknown } | undefined;
  async function worker(): Promise<void> {
    try {
      for (let next = await iterator.next(); next.done !== true && failure === undefined; next = await iterator.next()) {
        await work(next.value);
      }
    } catch (error) {
      failure ??= { error };
    }
  }
  await Promise.all(Array.from({ length: count }, worker));
  if (failure === undefined) return;
  await iterator.return?.();
  throw failure.error;
}
