import { blobStoreSuite } from '../contract/blob-store-suite.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { StoreRoom } from './store-room.ts';

blobStoreSuite('memory store', () => Promise.resolve(new MemoryStore()));
blobStoreSuite('local store', async (t) => (await StoreRoom.make(t)).open());
