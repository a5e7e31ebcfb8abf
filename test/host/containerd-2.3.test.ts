import { pullSuite } from './pull-suite.ts';

pullSuite('2.3');
