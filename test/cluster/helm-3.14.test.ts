import { fieldManagersSuite } from '../support/field-managers-suite.ts';

// The oldest release of Helm that is still met. It needs no node, but takes long to build.
fieldManagersSuite(['helm-3.14']);
