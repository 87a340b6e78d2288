# Every kernel is compiled once per instruction set, into a namespace of that name (VF_ISA);
# dispatch.cpp, compiled once, chooses among them at run time by what the processor has.
include(CheckCXXCompilerFlag)

file(GLOB cpu_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cpu/*.cpp)
set(dispatch_source ${CMAKE_CURRENT_SOURCE_DIR}/cpu/dispatch.cpp)
list(REMOVE_ITEM cpu_sources ${dispatch_source})

add_library(vf_kernels INTERFACE)
set(VF_ISAS "")
set(vf_definitions "")

function(vf_add_isa isa)
  add_library(vf_cpu_${isa} OBJECT ${cpu_sources})
  target_compile_definitions(vf_cpu_${isa} PRIVATE VF_ISA=${isa})
  target_compile_options(vf_cpu_${isa} PRIVATE ${ARGN})
  target_link_libraries(vf_cpu_${isa} PRIVATE vf_options)
  target_link_libraries(vf_kernels INTERFACE $<TARGET_OBJECTS:vf_cpu_${isa}>)
  set(VF_ISAS ${VF_ISAS} ${isa} PARENT_SCOPE)
endfunction()

vf_add_isa(baseline)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  check_cxx_compiler_flag("-mavx2 -mfma -mf16c" VF_COMPILES_AVX2)
  check_cxx_compiler_flag("-mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512"
                          VF_COMPILES_AVX512)
  if(VF_COMPILES_AVX2)
    vf_add_isa(avx2 -mavx2 -mfma -mf16c)
    list(APPEND vf_definitions VF_HAVE_AVX2)
  endif()
  if(VF_COMPILES_AVX512)
    # GCC 12 warns of its own intrinsics, whose undefined operand is meant.
    vf_add_isa(avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c
               -mprefer-vector-width=512 -Wno-uninitialized
               "$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>")
    list(APPEND vf_definitions VF_HAVE_AVX512)
  endif()
endif()
message(STATUS "CPU kernels for: ${VF_ISAS}")

add_library(vf_dispatch OBJECT ${dispatch_source})
target_compile_definitions(vf_dispatch PRIVATE ${vf_definitions})
target_link_libraries(vf_dispatch PRIVATE vf_options)
target_link_libraries(vf_kernels INTERFACE $<TARGET_OBJECTS:vf_dispatch>)
target_compile_definitions(vf_kernels INTERFACE ${vf_definitions})
