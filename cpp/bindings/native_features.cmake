# Writes native_features.h: what the level `native` needs of a processor, as -march=native meant it for the machine of the
# build. Another machine must be refused before it runs any of that code.
#   MFLD_NATIVE_FEATURES   a line MFLD_NEEDS("avx2") for each
set(_needs "")
if("native" IN_LIST MFLD_BUILT_ISAS AND _cpu MATCHES "^(x86_64|amd64)$")
  file(WRITE "${CMAKE_BINARY_DIR}/empty.cpp" "")
  execute_process(
    COMMAND "${CMAKE_CXX_COMPILER}" ${_flags_native} -dM -E "${CMAKE_BINARY_DIR}/empty.cpp"
    OUTPUT_VARIABLE _macros COMMAND_ERROR_IS_FATAL ANY)
  # Those that code for arrays and integers is made of. Macros are __AVX2__, names avx2; some differ.
  foreach(_feature
      SSE3 SSSE3 SSE4_1 SSE4_2 POPCNT AVX AVX2 FMA FMA4 XOP F16C BMI BMI2 LZCNT MOVBE ADX SHA AES PCLMUL GFNI VAES
      VPCLMULQDQ AVXVNNI AVXIFMA AVXVNNIINT8 AVXNECONVERT AVX512F AVX512CD AVX512BW AVX512DQ AVX512VL AVX512IFMA
      AVX512VBMI AVX512VBMI2 AVX512VNNI AVX512BITALG AVX512VPOPCNTDQ AVX512BF16 AVX512FP16 AVX512VP2INTERSECT)
    if(NOT _macros MATCHES "#define __${_feature}__ 1")
      continue()
    endif()
    string(TOLOWER "${_feature}" _name)
    string(REPLACE "sse4_" "sse4." _name "${_name}")
    # A compiler may use what it cannot ask for.
    check_cxx_source_compiles("int main() { return __builtin_cpu_supports(\"${_name}\"); }" MFLD_CAN_ASK_${_feature})
    if(MFLD_CAN_ASK_${_feature})
      string(APPEND _needs " MFLD_NEEDS(\"${_name}\")")
    endif()
  endforeach()
endif()
file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/generated/native_features.h" CONTENT
"#pragma once
#define MFLD_NATIVE_FEATURES ${_needs}
")
