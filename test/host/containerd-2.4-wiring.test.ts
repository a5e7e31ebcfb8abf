// Not in plain `npm test`: `npm run test:host-2.4`.
import { wiringSuites } from './wiring-suite.ts';

wiringSuites(['2.4']);
