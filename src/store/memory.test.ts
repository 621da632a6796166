import { memory } from './memory.ts';
import { storeConformance } from './store.conformance.ts';

storeConformance('memory', async () => {
  const store = memory();
  return { store, [Symbol.asyncDispose]: () => store.close() };
});
