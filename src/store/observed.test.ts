import { captureLog } from '../../test/support/log.ts';
import { memory } from '../testing/memory-store.ts';
import { storeConformance } from '../testing/store-suite.ts';
import { observedStore } from './observed.ts';

storeConformance('observed', async () => {
  const store = observedStore(memory(), { log: (await captureLog()).log, failed: () => undefined });
  return { store, [Symbol.asyncDispose]: () => store.close() };
});
