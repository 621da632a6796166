import { temporaryDirectory } from '../../../test/support/temporary.ts';
import { filesystem } from './filesystem.ts';
import { storeConformance } from '../../testing/store-suite.ts';

storeConformance('filesystem', async () => {
  const temporary = await temporaryDirectory();
  const store = await filesystem({ directory: temporary.path });
  return {
    store,
    async [Symbol.asyncDispose]() {
      await store.close();
      await temporary[Symbol.asyncDispose]();
    },
  };
});
