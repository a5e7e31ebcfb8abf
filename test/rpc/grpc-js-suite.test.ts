import { serverSuite } from '../contract/server-suite.ts';

serverSuite('grpc-js');
