// Not in plain `npm test`: `sh test/setup/node.sh test/setup/run-tests.ts host-2.4`.
import { pullSuite } from './pull-suite.ts';
import { wiringSuites } from './wiring-suite.ts';

pullSuite('2.4');
wiringSuites(['2.4']);
