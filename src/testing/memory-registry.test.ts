import { parseRepository } from '../oci/reference.ts';
import { createMemory } from './memory-registry.ts';
import { testRegistry } from './registry-suite.ts';
import { addSampleContent } from './sample-content.ts';

testRegistry('memory', async (content) => {
  const memory = createMemory();
  const repository = parseRepository('dockerhub/library/sample');
  addSampleContent(memory, repository, content);
  return { registry: memory.registry, repository, [Symbol.asyncDispose]: () => Promise.resolve() };
});
