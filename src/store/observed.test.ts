import { captureLog } from '../../test/support/log.ts';
import { memory } from '../testing/memory-store.ts';
import { storeConformance } from '../testing/store-suite.ts';
import { observeStores } from './observed.ts';

storeConformance('observed', async () => {
  const store = observeStores({ log: (await captureLog()).log, failed: () => undefined })(memory());
  return { store, [Symbol.asyncDispose]: () => store.close() };
});
