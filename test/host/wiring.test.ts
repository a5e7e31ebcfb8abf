import { wiringSuites } from './wiring-suite.ts';

wiringSuites(['1.6', '1.7', '2.1', '2.3']);
