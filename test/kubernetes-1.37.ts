// npm run test:1.37: what the tests of rewriting, of the policy's life cycle and of the webhook show,
// on Kubernetes 1.37. It is not part of `npm test`, because building a further kube-apiserver takes
// long.
import { policyLifeCycleSuite } from './support/policy-life-cycle-suite.ts';
import { rewritingSuite } from './support/rewriting-suite.ts';
import { toolPath } from './tools/tools.ts';

const kubeApiServer = await toolPath('kube-apiserver-1.37');
process.env['KUBE_REGISTRY_KUBE_APISERVER'] = kubeApiServer;
rewritingSuite('1.37', () => Promise.resolve(kubeApiServer));
policyLifeCycleSuite('1.37', () => Promise.resolve(kubeApiServer));
await Promise.all(['webhook', 'webhook-gate', 'webhook-limits'].map((name) => import(`./${name}.test.ts`)));
