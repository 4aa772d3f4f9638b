// The certified oidc-provider with settings to try Twins: anybody may sign in under any name.
// node provider.js PORT KEYS AUDIENCE SCOPES: the first key of the file KEYS signs, all of them are published.
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';

import { Provider } from 'oidc-provider';

const [port, keys, audience, scopes] = process.argv.slice(2);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: 'try-out',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      redirect_uris: ['http://127.0.0.1/signed-in'],
      grant_types: ['authorization_code'],
      response_types: ['code'],
    },
  ],
  cookies: { keys: [randomBytes(32).toString('hex')] },
  extraTokenClaims: (_, token) => {
    const [, organization] = (token.accountId ?? '').split('@');
    return organization === undefined ? {} : { org_id: organization };
  },
  features: {
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        accessTokenFormat: 'jwt',
        accessTokenTTL: 12 * 60 * 60,
        audience,
        jwt: { sign: { alg: 'RS256' } },
        scope: scopes,
      }),
    },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  jwks: JSON.parse(readFileSync(keys)),
  scopes: ['openid', ...scopes.split(' ')],
});

provider.listen(Number(port), '127.0.0.1', () => writeFileSync('provider.pid', String(process.pid)));
