-- wrk: threads take the addresses in turn, requests the keys by chance. WRK_ADDRS and WRK_KEYS say which.
local threads = 0
local addrs = {}
for host, port in (os.getenv('WRK_ADDRS') or ''):gmatch('([^:,]+):(%d+)') do addrs[#addrs + 1] = { host, port } end
function setup(thread)
  if #addrs > 0 then
    local addr = addrs[threads % #addrs + 1]
    thread.addr = wrk.lookup(addr[1], addr[2])[1]
  end
  thread:set('seed', threads + 1)
  threads = threads + 1
end
local requests = {}
function init()
  math.randomseed(seed)
  for line in io.lines(os.getenv('WRK_KEYS')) do
    requests[#requests + 1] = wrk.format('GET', '/scan', { authorization = 'Bearer ' .. line, Host = 'bench' })
  end
end
function request() return requests[math.random(#requests)] end
