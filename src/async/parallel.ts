/** Runs `work` for each item, `count` at a time. After the first failure, no further item is
 *  started, and the call fails once the running items have ended.
 *  @throws an error of `work`, or of the iterator of `items` */
export async function inParallel<Item>(
  items: Iterable<Item> | AsyncIterable<Item>,
  count: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  if (Array.isArray(items) && items.length <= count) return allOf(items, work);
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

async function allOf<Item>(items: readonly Item[], work: (item: Item) => Promise<void>): Promise<void> {
  for (const result of await Promise.allSettled(items.map(work))) if (result.status === 'rejected') throw result.reason;
}
