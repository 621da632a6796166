import { rewritingSuite } from './support/rewriting-suite.ts';
import { toolPath } from './tools/tools.ts';

rewritingSuite('1.37', () => toolPath('kube-apiserver-1.37'));
