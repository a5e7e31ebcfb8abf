// Not in plain `npm test`: `npm run test:host-2.4`.
import { pullSuite } from './pull-suite.ts';

pullSuite('2.4');
