import { installSuite } from './install-suite.ts';

installSuite('trixie');
