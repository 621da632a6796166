import { fieldManagersSuite } from '../test/support/field-managers-suite.ts';

fieldManagersSuite(['helm', 'helm-3']);
