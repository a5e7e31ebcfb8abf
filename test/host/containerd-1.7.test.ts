import { pullSuite } from './pull-suite.ts';

pullSuite('1.7');
