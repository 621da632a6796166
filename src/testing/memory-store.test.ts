import { memory } from './memory-store.ts';
import { storeConformance } from './store-suite.ts';

storeConformance('memory', async () => {
  const store = memory();
  return { store, [Symbol.asyncDispose]: () => store.close() };
});
