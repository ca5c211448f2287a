-- Asks loragate about a request. Sets txn.loragate_allowed on 200 alone; the configuration refuses
-- every request without it, so that an error in this file lets nothing through.
--
-- HAProxy's own HTTP client would repeat a question three times that was not answered in time, and
-- cannot be told otherwise in 2.6; hence a socket.

local HOST, PORT = "127.0.0.1", 9464
-- Without a name after it, the default extractor: /v1/check/NAME
local CHECK = "/v1/check"
local TIMEOUT_S = 10
local REFUSALS = { [400] = true, [403] = true, [413] = true, [503] = true }
local HANDED_ON = { "content-type", "retry-after", "x-loragate-decision-id", "x-loragate-verdict" }

-- Headers that describe the connection of the client, that loragate takes from the proxy, or that
-- are secrets. Where loragate has tokens, `question` has to add the proxy's authorization.
local NOT_SENT = {
    ["authorization"] = true,
    ["connection"] = true,
    ["content-length"] = true,
    ["cookie"] = true,
    ["expect"] = true,
    ["host"] = true,
    ["keep-alive"] = true,
    ["te"] = true,
    ["transfer-encoding"] = true,
    ["upgrade"] = true,
    ["x-original-content-length"] = true,
    ["x-original-method"] = true,
    ["x-original-upgrade"] = true,
    ["x-original-uri"] = true,
}

local function question(txn, body)
    local lines = {
        -- Of version 1.0: the answer ends where the connection does.
        "POST " .. CHECK .. " HTTP/1.0",
        "host: " .. HOST,
        "content-length: " .. #body,
        "x-original-content-length: " .. #body,
        "x-original-method: " .. txn.sf:method(),
        "x-original-uri: " .. txn.sf:pathq(),
        -- Upgrade itself would be about the connection to loragate.
        "x-original-upgrade: " .. (txn.sf:req_hdr("upgrade") or ""),
    }
    for name, values in pairs(txn.http:req_get_headers()) do
        if not NOT_SENT[name] then
            for index = 0, #values do
                table.insert(lines, name .. ": " .. values[index])
            end
        end
    end
    return table.concat(lines, "\r\n") .. "\r\n\r\n" .. body
end

-- Status, headers and body of loragate's answer; nil when there is none.
local function ask(text)
    local socket = core.tcp()
    socket:settimeout(TIMEOUT_S)
    if not socket:connect(HOST, PORT) or not socket:send(text) then
        socket:close()
        return nil
    end
    local answer = socket:receive("*a")
    socket:close()
    local head, body = (answer or ""):match("^(.-)\r\n\r\n(.*)$")
    local status = head and head:match("^HTTP/1%.[01] (%d%d%d) ")
    if not status then
        return nil
    end
    local headers = {}
    for name, value in head:gmatch("\r\n([^:\r\n]+):[ \t]*([^\r\n]*)") do
        headers[name:lower()] = value
    end
    return { status = tonumber(status), headers = headers, body = body }
end

local function deny(txn, answer)
    local headers = { ["cache-control"] = { "no-store" } }
    for _, name in ipairs(HANDED_ON) do
        if answer.headers[name] then
            headers[name] = { answer.headers[name] }
        end
    end
    txn:done(txn:reply({ status = answer.status, headers = headers, body = answer.body }))
end

core.register_action("loragate", { "http-req" }, function(txn)
    local body = txn.sf:req_body() or ""
    local announced = tonumber(txn.sf:req_hdr("content-length") or "0") or 0
    if #body ~= announced then
        return -- cut off by the buffer, or still on its way when time was up
    end
    local answer = ask(question(txn, body))
    if not answer then
        return
    end
    if answer.status == 200 then
        txn:set_var("txn.loragate_allowed", true)
    elseif REFUSALS[answer.status] then
        deny(txn, answer)
    end
end)
