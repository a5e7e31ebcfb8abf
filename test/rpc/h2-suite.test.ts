import { serverSuite } from '../contract/server-suite.ts';

serverSuite('h2');
