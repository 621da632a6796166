import { rewritingSuite } from './support/rewriting-suite.ts';
import { toolPath } from './tools/tools.ts';

rewritingSuite('1.36', () => toolPath('kube-apiserver-1.36'));
